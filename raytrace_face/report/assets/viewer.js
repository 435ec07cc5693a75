// The face in 3D: expressions, orbit, three looks, the fitted lights with shadow maps.

const HEAD_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
uniform mat4 clip;
uniform vec4 line;  // colour of wires; alpha 0: surfaces
out vec3 at, facing;
out vec2 texel;
void main() {
  at = position;
  facing = normal;
  texel = vec2(uv.x, 1.0 - uv.y);  // row 0 of a map is v = 1
  gl_Position = clip * vec4(position, 1.0);
  if (line.a > 0.0) gl_Position.z -= 0.001 * gl_Position.w;  // wires lie half a millimetre before their surface
}`;

const DEPTH_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
uniform mat4 clip;
void main() { gl_Position = clip * vec4(position, 1.0); }`;
const DEPTH_FRAGMENT = `#version 300 es
void main() {}`;
const SHADOWED = 3, SHADOW_SIZE = 1024;  // the brightest lamps cast shadows; 0.3 mm a texel
/** Share of the surroundings that reaches a part: the shadow maps are for lamps, and lips close most of the sky off. */
const OPEN = { skin: 1, eyes: 0.8, teeth: 0.4, mouth: 0.25 };

// The skin's own BSDF (docs/method.md) under lamps that are points, and surroundings of order-2 harmonics.
const HEAD_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2DArrayShadow;
in vec3 at, facing;
in vec2 texel;
uniform sampler2D diffuseMap, specularMap, roughnessMap;
uniform sampler2DArrayShadow shadowMaps;
uniform mat4 lampClip[${SHADOWED}];
uniform float open;
uniform vec3 eye, plainColour, lampCentre[20], lampStrength[20], harmonics[9];
uniform int lamps, kind;  // kind 0: maps; 1: diffuse map only; 2: plain colour
uniform float plainF0, plainRoughness, specularWhite;
uniform float clay;  // its albedo; 0: skin
uniform vec4 line;
out vec4 colour;
${SRGB_GLSL}
const float PI = 3.14159265;
float grazing(float cosine) { return pow(clamp(1.0 - cosine, 0.0, 1.0), 5.0); }
float fresnel(float f0, float cosine) { return f0 + (min(25.0 * f0, 1.0) - f0) * grazing(cosine); }
vec3 surroundings(vec3 n) {  // irradiance / pi (Ramamoorthi & Hanrahan 2001)
  const vec3 keep = vec3(1.0, 2.0 / 3.0, 0.25);
  vec3 sum = keep.x * 0.282095 * harmonics[0];
  sum += keep.y * 0.488603 * (n.y * harmonics[1] + n.z * harmonics[2] + n.x * harmonics[3]);
  sum += keep.z * (1.092548 * (n.x * n.y * harmonics[4] + n.y * n.z * harmonics[5] + n.x * n.z * harmonics[7])
    + 0.315392 * (3.0 * n.z * n.z - 1.0) * harmonics[6] + 0.546274 * (n.x * n.x - n.y * n.y) * harmonics[8]);
  return max(sum, 0.0);
}
float lit(int lamp, vec3 n) {  // 4 x 4 comparisons, two texels apart and bilinear
  if (lamp >= ${SHADOWED}) return 1.0;
  vec3 p = 0.5 + 0.5 * (lampClip[lamp] * vec4(at + 1.5 * n, 1.0)).xyz;
  float sum = 0.0;
  for (int k = 0; k < 16; k++) {
    vec2 step = 2.0 * (vec2(k & 3, k >> 2) - 1.5) / ${SHADOW_SIZE}.0;
    sum += texture(shadowMaps, vec4(p.xy + step, lamp, p.z - 0.004));
  }
  return sum / 16.0;
}
void main() {
  if (line.a > 0.0) { colour = line; return; }
  vec3 n = normalize(facing), view = normalize(eye - at);
  if (dot(n, view) < 0.0) n = normalize(n - 1.02 * dot(n, view) * view);  // a silhouette's interpolated normal
  vec3 albedo = kind < 2 ? texture(diffuseMap, texel).rgb : plainColour;
  float f0 = kind == 0 ? texture(specularMap, texel).r * specularWhite : plainF0;
  float r = kind == 0 ? texture(roughnessMap, texel).r : plainRoughness;
  if (clay > 0.0) { albedo = vec3(clay); f0 = 0.01; r = 0.7; }
  float alpha = max(r * r, 0.01), a2 = alpha * alpha, cosI = max(dot(n, view), 1e-3);
  float through = 1.0 - fresnel(f0, cosI);
  vec3 sum = open * albedo * through * (1.0 - f0) * surroundings(n);
  sum += open * (f0 + (max(1.0 - r, f0) - f0) * grazing(cosI)) * (1.0 - 0.5 * r) * surroundings(reflect(-view, n));
  for (int k = 0; k < lamps; k++) {
    vec3 towards = lampCentre[k] - at, h;
    float nearer = dot(lampCentre[k], lampCentre[k]) / dot(towards, towards);
    towards = normalize(towards);
    float cosO = dot(n, towards);
    if (cosO <= 0.0) continue;
    h = normalize(towards + view);
    float t = pow(max(dot(n, h), 0.0), 2.0) * (a2 - 1.0) + 1.0;
    float smith = 0.5 / max(cosO * sqrt(a2 + (1.0 - a2) * cosI * cosI) + cosI * sqrt(a2 + (1.0 - a2) * cosO * cosO), 1e-6);
    float mirrored = a2 / (t * t) * smith * fresnel(f0, dot(view, h));
    sum += lit(k, n) * lampStrength[k] * nearer * cosO * (albedo * through * (1.0 - fresnel(f0, cosO)) + mirrored);
  }
  colour = vec4(toSrgb(clamp(sum, 0.0, 1.0)), 1.0);
}`;

/** Neutral positions, morph targets and smooth normals on the CPU: 20,000 vertices take a few milliseconds. */
function makeShape(data) {
  const index = data.indexBytes === 2 ? Uint16Array : Uint32Array, count = data.vertexCount;
  const codes = typedArray(Uint16Array, data.positions), neutral = new Float32Array(3 * count);
  for (let k = 0; k < neutral.length; k++) neutral[k] = data.low[k % 3] + data.step[k % 3] * codes[k];
  const triangles = typedArray(index, data.triangles), weld = typedArray(index, data.weld);
  const moved = typedArray(index, data.morphs.index), moves = typedArray(Int16Array, data.morphs.codes);
  const positions = new Float32Array(3 * count), normals = new Float32Array(3 * count), sums = new Float32Array(3 * count);
  const starts = [];
  data.morphs.targets.reduce((start, target) => (starts.push(start), start + target.count), 0);

  function pose(weights) {
    positions.set(neutral);
    data.morphs.targets.forEach(({ count: some, step }, m) => {
      const factor = weights[m] * step;
      if (!factor) return;
      for (let k = starts[m]; k < starts[m] + some; k++) {
        const v = 3 * moved[k];
        for (let c = 0; c < 3; c++) positions[v + c] += factor * moves[3 * k + c];
      }
    });
    sums.fill(0);
    for (let k = 0; k < triangles.length; k += 3) {
      const a = 3 * triangles[k], b = 3 * triangles[k + 1], c = 3 * triangles[k + 2];
      const x = positions[b] - positions[a], y = positions[b + 1] - positions[a + 1], z = positions[b + 2] - positions[a + 2];
      const u = positions[c] - positions[a], v = positions[c + 1] - positions[a + 1], w = positions[c + 2] - positions[a + 2];
      const nx = y * w - z * v, ny = z * u - x * w, nz = x * v - y * u;
      for (let corner = 0; corner < 3; corner++) {
        const at = 3 * weld[triangles[k + corner]];
        sums[at] += nx;
        sums[at + 1] += ny;
        sums[at + 2] += nz;
      }
    }
    for (let k = 0; k < count; k++) {
      const at = 3 * weld[k], length = Math.hypot(sums[at], sums[at + 1], sums[at + 2]) || 1;
      for (let c = 0; c < 3; c++) normals[3 * k + c] = sums[at + c] / length;
    }
  }

  /** Each edge once; without the diagonals where triangles come in pairs that are quads. */
  function edges() {
    const seen = new Set(), out = [];
    const add = (a, b) => {
      const key = Math.min(weld[a], weld[b]) * count + Math.max(weld[a], weld[b]);
      if (!seen.has(key)) out.push(a, b);
      seen.add(key);
    };
    for (let k = 0; k < triangles.length; k += data.quads ? 6 : 3) {
      const loop = data.quads ? [0, 1, 2, 5] : [0, 1, 2];
      loop.forEach((corner, n) => add(triangles[k + corner], triangles[k + loop[(n + 1) % loop.length]]));
    }
    return new index(out);
  }
  return { positions, normals, triangles, edges, pose };
}

/** Matrix (column-major) from the head frame to clip space, and the eye in the head frame, for an orbit of the photo's camera. */
function orbitCamera({ T, focal, principal }, { yaw, pitch, zoom }) {
  const pivot = [0, -15, -50];  // mm: about the middle of the head
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const R0 = [0, 1, 2].map((r) => T.slice(4 * r, 4 * r + 3));
  const centre = R0.map((row, r) => dot(row, pivot) + T[4 * r + 3]);
  const times = (A, B) => A.map((row) => [0, 1, 2].map((c) => row[0] * B[0][c] + row[1] * B[1][c] + row[2] * B[2][c]));
  const R = times([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], times(R0, [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]));
  const t = R.map((row, r) => centre[r] - dot(row, pivot));
  const eye = [0, 1, 2].map((c) => -(R[0][c] * t[0] + R[1][c] * t[1] + R[2][c] * t[2]));
  const f = 2 * focal * zoom, away = Math.abs(centre[2]), near = Math.max(20, away - 500), far = away + 500;
  // turned away from the photo's own view, the head comes to the middle of the canvas
  const home = Math.max(0, 1 - Math.hypot(yaw, pitch) / 0.6);
  const aim = [(-f * centre[0]) / centre[2], (-f * centre[1]) / centre[2]];
  const px = home * (2 * principal[0] - 1) * zoom - (1 - home) * aim[0], py = home * (1 - 2 * principal[1]) * zoom - (1 - home) * aim[1];
  const P = [[f, 0, -px, 0], [0, f, -py, 0], [0, 0, -(far + near) / (far - near), (-2 * far * near) / (far - near)], [0, 0, -1, 0]];
  const view = [...R.map((row, r) => [...row, t[r]]), [0, 0, 0, 1]];
  const clip = new Float32Array(16);
  for (let r = 0; r < 4; r++)
    for (let c = 0; c < 4; c++) clip[4 * c + r] = [0, 1, 2, 3].reduce((sum, k) => sum + P[r][k] * view[k][c], 0);
  return { clip, eye };
}

/** Parallel projection (column-major) along the direction to a lamp that just holds a ball of radius r about c. */
function lampProjection(lamp, c, r) {
  const w = unit(lamp.map((v, k) => v - c[k])), side = Math.abs(w[1]) < 0.9 ? [0, 1, 0] : [1, 0, 0];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const u = unit(cross(side, w)), v = cross(w, u), rows = [u, v, scaled(w, -1)].map((row) => scaled(row, 1 / r));
  return [0, 1, 2].flatMap((k) => [...rows.map((row) => row[k]), 0]).concat(rows.map((row) => -dot(row, c)), 1);
}

/** The viewer on a canvas; `draw()` after changes of `weights`, `look` and `orbit`. */
async function makeViewer(canvas, data) {
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: true, preserveDrawingBuffer: true });
  if (!gl) throw new Error("this browser has no WebGL 2");
  const shape = makeShape(data), program = makeProgram(gl, HEAD_VERTEX, HEAD_FRAGMENT), at = uniformsOf(gl, program);
  const wide = data.indexBytes === 2 ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT;
  gl.bindVertexArray(gl.createVertexArray());
  const buffer = (target, values, usage) => {
    const made = gl.createBuffer();
    gl.bindBuffer(target, made);
    gl.bufferData(target, values, usage);
    return made;
  };
  const moving = [shape.positions, shape.normals].map((values, slot) => {
    const made = buffer(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, 3, gl.FLOAT, false, 0, 0);
    return made;
  });
  buffer(gl.ARRAY_BUFFER, typedArray(Uint16Array, data.uv), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(2);
  gl.vertexAttribPointer(2, 2, gl.UNSIGNED_SHORT, true, 0, 0);
  const faces = buffer(gl.ELEMENT_ARRAY_BUFFER, shape.triangles, gl.STATIC_DRAW);
  let wires = null;

  // shadow maps: depths as the brightest lamps see the head
  const casting = data.lights.slice(0, SHADOWED), low = data.low, high = low.map((v, k) => v + 65535 * data.step[k]);
  const middle = plus(low, high).map((v) => v / 2), radius = 0.55 * Math.hypot(...high.map((v, k) => v - low[k]));
  const projections = casting.map((lamp) => lampProjection(lamp.centre, middle, radius));
  const depthProgram = makeProgram(gl, DEPTH_VERTEX, DEPTH_FRAGMENT), depthClip = gl.getUniformLocation(depthProgram, "clip");
  const depths = gl.createTexture(), depthFrame = gl.createFramebuffer();
  gl.activeTexture(gl.TEXTURE3);
  gl.bindTexture(gl.TEXTURE_2D_ARRAY, depths);
  gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.DEPTH_COMPONENT24, SHADOW_SIZE, SHADOW_SIZE, SHADOWED);
  gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_COMPARE_MODE, gl.COMPARE_REF_TO_TEXTURE);
  gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
  gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  function castShadows() {
    gl.useProgram(depthProgram);
    gl.bindFramebuffer(gl.FRAMEBUFFER, depthFrame);
    gl.viewport(0, 0, SHADOW_SIZE, SHADOW_SIZE);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, faces);
    projections.forEach((projection, k) => {
      gl.framebufferTextureLayer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, depths, 0, k);
      gl.clear(gl.DEPTH_BUFFER_BIT);
      gl.uniformMatrix4fv(depthClip, false, projection);
      gl.drawElements(gl.TRIANGLES, shape.triangles.length, wide, 0);
    });
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.useProgram(program);
  }

  const maps = {};
  for (const name of ["diffuse", "eyes"])
    maps[name] = makeTexture(gl, await picture(data.maps[name]), gl.SRGB8_ALPHA8, gl.RGBA, gl.LINEAR_MIPMAP_LINEAR);
  for (const name of ["specular", "roughness"])
    maps[name] = makeTexture(gl, await picture(data.maps[name]), gl.R8, gl.RED, gl.LINEAR_MIPMAP_LINEAR);
  gl.useProgram(program);
  [["diffuseMap", "diffuse"], ["specularMap", "specular"], ["roughnessMap", "roughness"]].forEach(([uniform, name], slot) => {
    gl.activeTexture(gl.TEXTURE0 + slot);
    gl.bindTexture(gl.TEXTURE_2D, maps[name]);
    gl.uniform1i(at[uniform], slot);
  });
  gl.uniform1i(at.shadowMaps, 3);
  if (casting.length) gl.uniformMatrix4fv(at.lampClip, false, projections.flat());
  const lamps = data.lights.slice(0, 20);
  gl.uniform1i(at.lamps, lamps.length);
  if (lamps.length) {
    gl.uniform3fv(at.lampCentre, lamps.flatMap((lamp) => lamp.centre));
    gl.uniform3fv(at.lampStrength, lamps.flatMap((lamp) => lamp.irradiance));
  }
  gl.uniform3fv(at.harmonics, data.ambient.flat());
  gl.uniform1f(at.specularWhite, data.specularWhite);
  gl.clearColor(0.075, 0.078, 0.086, 1);
  gl.enable(gl.DEPTH_TEST);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);

  const viewer = {
    weights: data.morphs.targets.map((target) => target.weight),
    look: "textured",
    orbit: { yaw: 0, pitch: 0, zoom: 1 },
    vertexCount: shape.positions.length / 3,
    pose() {
      shape.pose(viewer.weights);
      [shape.positions, shape.normals].forEach((values, k) => {
        gl.bindBuffer(gl.ARRAY_BUFFER, moving[k]);
        gl.bufferSubData(gl.ARRAY_BUFFER, 0, values);
      });
      castShadows();
    },
    draw() {
      const side = Math.max(1, Math.round(canvas.clientWidth * Math.min(window.devicePixelRatio || 1, 2)));
      if (canvas.width !== side) canvas.width = canvas.height = side;
      gl.viewport(0, 0, side, side);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const { clip, eye } = orbitCamera(data.camera, viewer.orbit);
      gl.uniformMatrix4fv(at.clip, false, clip);
      gl.uniform3fv(at.eye, eye);
      gl.uniform1f(at.clay, viewer.look === "textured" ? 0 : data.clay);
      gl.uniform4f(at.line, 0, 0, 0, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, faces);
      for (const part of data.parts) {
        gl.activeTexture(gl.TEXTURE0);
        gl.bindTexture(gl.TEXTURE_2D, part.name === "eyes" ? maps.eyes : maps.diffuse);
        gl.uniform1i(at.kind, part.name === "skin" ? 0 : part.name === "eyes" ? 1 : 2);
        gl.uniform3fv(at.plainColour, part.colour);
        gl.uniform1f(at.open, OPEN[part.name]);
        gl.uniform1f(at.plainF0, part.f0);
        gl.uniform1f(at.plainRoughness, part.roughness);
        gl.drawElements(gl.TRIANGLES, 3 * part.count, wide, 3 * part.first * data.indexBytes);
      }
      if (viewer.look === "wireframe") {
        if (!wires) {
          const ends = shape.edges();
          wires = { ends: buffer(gl.ELEMENT_ARRAY_BUFFER, ends, gl.STATIC_DRAW), count: ends.length };
        }
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, wires.ends);
        gl.uniform4f(at.line, 0.05, 0.16, 0.2, 0.45);
        gl.enable(gl.BLEND);
        gl.drawElements(gl.LINES, wires.count, wide, 0);
        gl.disable(gl.BLEND);
      }
    },
  };
  viewer.pose();
  viewer.draw();
  return viewer;
}

/** Orbit by pointer and keys, looks, expression sliders. */
function connectViewer(viewer, canvas, data) {
  const find = (id) => document.getElementById(id), orbit = viewer.orbit;
  let waiting = false, posed = true;
  function changed() {
    if (!waiting) requestAnimationFrame(() => {
      waiting = false;
      if (!posed) viewer.pose();
      posed = true;
      viewer.draw();
    });
    waiting = true;
  }
  function turn(yaw, pitch, zoom = 1) {
    orbit.yaw += yaw;
    orbit.pitch = Math.min(1.3, Math.max(-1.3, orbit.pitch + pitch));
    orbit.zoom = Math.min(6, Math.max(0.5, orbit.zoom * zoom));
    changed();
  }
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId) || !last) return;
    const step = 3.5 / canvas.clientWidth;
    turn((event.clientX - last[0]) * step, (event.clientY - last[1]) * step);
    last = [event.clientX, event.clientY];
  });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return;  // elsewhere the wheel scrolls the page
    event.preventDefault();
    turn(0, 0, Math.exp(-event.deltaY * 0.001));
  }, { passive: false });
  const keys = {
    ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1], "+": [0, 0, 1.1], "-": [0, 0, 1 / 1.1],
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Home") find("view-reset").click();
    else if (keys[event.key]) turn(...keys[event.key]);
    else return;
    event.preventDefault();
  });
  find("view-nearer").addEventListener("click", () => turn(0, 0, 1.25));
  find("view-farther").addEventListener("click", () => turn(0, 0, 0.8));
  find("view-reset").addEventListener("click", () => { Object.assign(orbit, { yaw: 0, pitch: 0, zoom: 1 }); changed(); });
  for (const radio of document.querySelectorAll("input[name=look]"))
    radio.addEventListener("change", () => { viewer.look = radio.value; changed(); });
  window.addEventListener("resize", changed);

  const sliders = data.morphs.targets.map((target, m) => {
    let group = document.querySelector(`[data-group="${target.group}"]`);
    if (!group) {
      group = find("expression-group").content.firstElementChild.cloneNode(true);
      group.dataset.group = target.group;
      group.querySelector("summary").textContent = target.group;
      find("expressions").append(group);
    }
    const row = find("expression-row").content.firstElementChild.cloneNode(true);
    const label = row.querySelector("label"), slider = row.querySelector("input"), value = row.querySelector("output");
    slider.id = `expression-${target.name}`;
    label.htmlFor = slider.id;
    label.textContent = target.label;
    slider.addEventListener("input", () => set(Number(slider.value)));
    group.append(row);
    function set(weight) {
      viewer.weights[m] = weight;
      slider.value = weight;
      value.textContent = weight.toFixed(2);
      posed = false;
      changed();
    }
    set(target.weight);
    return set;
  });
  find("expression-photo").addEventListener("click", () => sliders.forEach((set, m) => set(data.morphs.targets[m].weight)));
  find("expression-neutral").addEventListener("click", () => sliders.forEach((set) => set(0)));
  find("viewer-status").textContent =
    `${viewer.vertexCount.toLocaleString("en")} vertices, ${data.triangleCount.toLocaleString("en")} triangles, ` +
    `${data.morphs.targets.length} expressions`;
}
