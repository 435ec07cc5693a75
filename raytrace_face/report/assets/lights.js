// What the light stage is set to, and its controls: rows of lights, presets, and the key light on its map.

const plus = (a, b) => a.map((v, k) => v + b[k]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const angleBetween = (a, b) => Math.acos(Math.min(1, Math.max(-1, dot(a, b))));
const unit = (v) => scaled(v, 1 / Math.hypot(...v));
const WHITE = [1, 1, 1], BLACK = [0, 0, 0];
const hexOf = (rgb) => {
  const top = largest(rgb) || 1;
  return "#" + rgb.map((v) => Math.round(255 * toSrgb(v / top)).toString(16).padStart(2, "0")).join("");
};
/** Linear colour of a #rrggbb, its largest channel 1. */
const colourOf = (hex) => {
  const rgb = [1, 3, 5].map((k) => toLinear(parseInt(hex.slice(k, k + 2), 16) / 255));
  return largest(rgb) > 0 ? scaled(rgb, 1 / largest(rgb)) : WHITE;
};

/** Angles of a direction, and back, in degrees; camera frame, azimuth positive to the right, 0 towards the camera. */
const anglesOf = ([x, y, z]) => [
  (Math.atan2(x, z) * 180) / Math.PI, (Math.asin(Math.min(1, Math.max(-1, y))) * 180) / Math.PI,
];
const directionOf = (azimuth, elevation) => {
  const a = (azimuth * Math.PI) / 180, e = (elevation * Math.PI) / 180;
  return [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
};

/** The state: a colour for each light, the surroundings, and a key light that lies between the stage's lights. */
function makeLighting(data) {
  const count = data.lights.length, towards = data.lights.map((light) => light.direction), R = data.rotation;
  let nearest = Math.PI;
  for (let i = 0; i < count; i++)
    for (let j = 0; j < i; j++) nearest = Math.min(nearest, angleBetween(towards[i], towards[j]));
  const width = 0.3 * nearest;  // at a light its neighbours then get under 1 %

  /** Shares of the stage's lights, which add up to 1, that stand in for a light at a direction (head frame). */
  function shares(direction) {
    const raw = towards.map((t) => Math.exp(-0.5 * (angleBetween(t, direction) / width) ** 2));
    const total = raw.reduce((a, b) => a + b, 0);
    return raw.map((v) => (v / total < 0.004 ? 0 : v / total));
  }

  const lighting = {
    base: [], surroundings: [], key: null,
    toCamera: (d) => [0, 1, 2].map((r) => R[3 * r] * d[0] + R[3 * r + 1] * d[1] + R[3 * r + 2] * d[2]),
    toHead: (d) => [0, 1, 2].map((c) => R[c] * d[0] + R[3 + c] * d[1] + R[6 + c] * d[2]),
    /** One RGB for each light, the key light's share included. */
    lights() {
      if (!lighting.key) return lighting.base.slice();
      const part = shares(lighting.key.direction);
      return lighting.base.map((rgb, k) => plus(rgb, scaled(lighting.key.rgb, part[k])));
    },
    /** One RGB for each source of the stage: lights, fitted ambient by channel, even light, sky. */
    weights() {
      const [ambient, even, sky] = lighting.surroundings;
      return [...lighting.lights(), [ambient[0], 0, 0], [0, ambient[1], 0], [0, 0, ambient[2]], even, sky];
    },
    setLight(k, rgb) {
      lighting.base = lighting.lights();
      lighting.key = null;
      lighting.base[k] = rgb;
    },
    asFitted() {
      lighting.base = data.fitted.slice(0, count).map((rgb) => rgb.slice());
      lighting.surroundings = [WHITE, BLACK, BLACK];
      lighting.key = null;
    },
    /** Presets take 1 for the light of an ordinary exposure: here the light that the photo has. */
    preset({ lights, even, sky }) {
      const here = (rgb) => scaled(rgb, data.level);
      lighting.base = towards.map(() => BLACK);
      lighting.surroundings = [BLACK, here(even), here(sky)];
      const order = lights.slice().sort((a, b) => largest(b.irradiance) - largest(a.irradiance));
      lighting.key = order.length ? { direction: order[0].direction, rgb: here(order[0].irradiance) } : null;
      for (const { direction, irradiance } of order.slice(1)) {
        const part = shares(direction);
        lighting.base = lighting.base.map((rgb, k) => plus(rgb, scaled(here(irradiance), part[k])));
      }
    },
    /** The key light; taken out of the brightest light of the stage when there is none yet. */
    grabKey() {
      if (lighting.key) return lighting.key;
      const k = lighting.brightest();
      const rgb = largest(lighting.base[k]) > 0 ? lighting.base[k] : WHITE;
      lighting.base[k] = BLACK;
      lighting.key = { direction: towards[k], rgb };
      return lighting.key;
    },
    brightest: () => lighting.base.reduce((best, rgb, k, all) => (largest(rgb) > largest(all[best]) ? k : best), 0),
    keyDirection: () => (lighting.key ? lighting.key.direction : towards[lighting.brightest()]),
    keyColour: () => (lighting.key ? lighting.key.rgb : lighting.base[lighting.brightest()]),
  };
  lighting.asFitted();
  return lighting;
}

/** A row with a slider and a colour; `get` and `set` an RGB. Returns what brings it up to date. */
function makeRow(parent, id, name, top, get, set) {
  const row = document.getElementById("light-row").content.firstElementChild.cloneNode(true);
  const [label, slider, value, colour] = ["label", ".strength", "output", ".colour"].map((q) => row.querySelector(q));
  let hue = WHITE;
  slider.id = id;
  label.htmlFor = id;
  label.textContent = name;
  slider.max = top;
  colour.setAttribute("aria-label", `${name}, colour`);
  slider.addEventListener("input", () => set(scaled(hue, Number(slider.value))));
  colour.addEventListener("input", () => {
    hue = colourOf(colour.value);
    set(scaled(hue, Number(slider.value)));
  });
  parent.append(row);
  return () => {
    const rgb = get(), strength = largest(rgb);
    if (strength > 0) hue = scaled(rgb, 1 / strength);
    if (document.activeElement !== slider || Math.abs(slider.value - strength) > 0.011) slider.value = strength;
    colour.value = hexOf(hue);
    value.textContent = strength.toFixed(2);
    row.classList.toggle("off", strength === 0);
  };
}

const MAP_RADIUS = 92;
/** Place of a direction (camera frame) on the map: the camera in the middle, 90 degrees half way out, behind at the rim. */
function mapPlace([x, y, z]) {
  const angle = Math.acos(Math.min(1, Math.max(-1, z))), across = Math.hypot(x, y) || 1;
  const r = (MAP_RADIUS * angle) / Math.PI;
  return [(r * x) / across, (-r * y) / across];
}
function mapDirection(px, py) {
  const r = Math.hypot(px, py), angle = Math.PI * Math.min(r / MAP_RADIUS, 0.999), s = Math.sin(angle) / (r || 1);
  return [px * s, -py * s, Math.cos(angle)];
}

/** Connect state, controls and canvas. */
function connectStage(stage, data) {
  const lighting = makeLighting(data), find = (id) => document.getElementById(id), updates = [];
  const strengths = data.presets.flatMap(({ lights }) => lights.map(({ irradiance }) => data.level * largest(irradiance)));
  const top = Math.ceil(1.2 * Math.max(1, ...data.fitted.slice(0, data.lights.length).map(largest), ...strengths));
  const look = () => ({
    weights: lighting.weights(), shadows: Number(find("stage-shadows").value),
    exposure: 2 ** Number(find("stage-exposure").value), clay: find("stage-clay").checked,
  });
  let waiting = false;
  function changed() {
    for (const update of updates) update();
    if (!waiting) requestAnimationFrame(() => { waiting = false; stage.draw(look()); });
    waiting = true;
  }

  // rows: lights that are on in the photo first
  const on = data.lights.map((light, k) => k).filter((k) => largest(data.fitted[k]) > 0);
  const off = data.lights.map((light, k) => k).filter((k) => !on.includes(k));
  find("lights-off-count").textContent = off.length;
  for (const [parent, some] of [[find("lights-on"), on], [find("lights-off"), off]])
    for (const k of some)
      updates.push(makeRow(parent, `light-${k + 1}`, data.lights[k].name, top, () => lighting.lights()[k], (rgb) => {
        lighting.setLight(k, rgb);
        changed();
      }));
  ["Ambient, as fitted", "Even light", "Sky from above"].forEach((name, k) =>
    updates.push(makeRow(find("surroundings"), `surroundings-${k + 1}`, name, Math.max(2, Math.ceil(1.2 * data.level)), () => lighting.surroundings[k], (rgb) => {
      lighting.surroundings[k] = rgb;
      changed();
    })));

  // presets
  const choose = find("stage-preset");
  for (const { name, description } of data.presets) {
    const option = document.createElement("option");
    option.value = option.textContent = name;
    option.title = description;
    choose.append(option);
  }
  choose.addEventListener("change", () => {
    const preset = data.presets.find(({ name }) => name === choose.value);
    if (preset) lighting.preset(preset);
    else lighting.asFitted();
    find("preset-description").textContent = preset ? preset.description : "The lights found in the photo";
    changed();
  });
  find("stage-reset").addEventListener("click", () => {
    choose.value = "";
    find("stage-shadows").value = data.shadows;
    find("stage-exposure").value = 0;
    find("stage-clay").checked = false;
    choose.dispatchEvent(new Event("change"));
  });
  for (const id of ["stage-shadows", "stage-exposure", "stage-clay"]) find(id).addEventListener("input", changed);

  // the key light: on the map, and by sliders
  const map = find("stage-map"), puck = find("map-key"), SVG = "http://www.w3.org/2000/svg";
  const dots = data.lights.map((light) => {
    const dot = map.insertBefore(document.createElementNS(SVG, "circle"), puck), [x, y] = mapPlace(lighting.toCamera(light.direction));
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    return dot;
  });
  function moveKey(direction) {
    lighting.grabKey();
    lighting.key = { ...lighting.key, direction: unit(lighting.toHead(direction)) };
    changed();
  }
  const pointed = (event) => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
    moveKey(mapDirection(x, y));
  };
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); pointed(event); });
  map.addEventListener("pointermove", (event) => { if (map.hasPointerCapture(event.pointerId)) pointed(event); });
  const around = find("key-around"), height = find("key-height");
  for (const slider of [around, height])
    slider.addEventListener("input", () => moveKey(directionOf(Number(around.value), Number(height.value))));
  updates.push(makeRow(find("key-light"), "key-strength", "Strength", top, lighting.keyColour, (rgb) => {
    lighting.grabKey();
    lighting.key = { ...lighting.key, rgb };
    changed();
  }));
  updates.push(() => {
    const towards = lighting.toCamera(lighting.keyDirection()), [azimuth, elevation] = anglesOf(towards);
    const [x, y] = mapPlace(towards);
    puck.setAttribute("transform", `translate(${x} ${y})`);
    if (document.activeElement !== around) around.value = azimuth;
    if (document.activeElement !== height) height.value = elevation;
    find("key-around-value").textContent = `${Math.abs(azimuth).toFixed(0)}° ${azimuth >= 0 ? "right" : "left"}`;
    find("key-height-value").textContent = `${Math.abs(elevation).toFixed(0)}° ${elevation >= 0 ? "above" : "below"}`;
    find("stage-shadows-value").textContent = `${Math.round(100 * find("stage-shadows").value)} %`;
    find("stage-exposure-value").textContent = `${Number(find("stage-exposure").value).toFixed(1)} stops`;
    lighting.lights().forEach((rgb, k) => {
      const strength = largest(rgb);
      dots[k].setAttribute("r", 2.2 + 5 * Math.sqrt(Math.min(strength, 2)));
      dots[k].setAttribute("class", strength > 0 ? "lamp" : "lamp dark");
      dots[k].setAttribute("fill", strength > 0 ? hexOf(rgb) : "none");
    });
  });
  find("stage-shadows").value = data.shadows;
  find("stage-status").textContent = `${data.lights.length} lights and their surroundings, ${data.size} × ${data.size} pixels`;
  changed();
  return { lighting, changed, look };
}
