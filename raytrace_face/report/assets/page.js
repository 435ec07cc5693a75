// Start: the slider over the photo, then the light stage and the viewer. Without this script the stills remain.

document.documentElement.classList.replace("no-js", "js");

function connectCompare() {
  const box = document.getElementById("compare"), slider = document.getElementById("compare-slider");
  const show = () => box.style.setProperty("--cut", `${slider.value}%`);
  const pointed = (event) => {
    const { left, width } = box.getBoundingClientRect();
    slider.value = (100 * (event.clientX - left)) / width;
    show();
  };
  slider.addEventListener("input", show);
  box.addEventListener("pointerdown", (event) => { box.setPointerCapture(event.pointerId); pointed(event); });
  box.addEventListener("pointermove", (event) => { if (box.hasPointerCapture(event.pointerId)) pointed(event); });
  show();
}

async function start() {
  connectCompare();
  const data = JSON.parse(document.getElementById("data").textContent);
  const report = { stage: null, viewer: null };
  const parts = {
    async stage() {
      const stage = await makeStage(document.getElementById("stage"), data.stage);
      report.stage = { ...connectStage(stage, data.stage), ...stage };
    },
    async viewer() {
      const canvas = document.getElementById("viewer"), viewer = await makeViewer(canvas, data.viewer);
      connectViewer(viewer, canvas, data.viewer);
      report.viewer = viewer;
    },
  };
  for (const [name, begin] of Object.entries(parts)) {
    try {
      await begin();
    } catch (error) {
      const status = document.getElementById(`${name}-status`);
      status.textContent = `Not shown: ${error.message}. The pictures remain.`;
      status.closest(".columns").replaceChildren(status);  // controls of nothing would only puzzle
    }
  }
  window.raytraceFace = report;  // for the curious, and for tests
  document.documentElement.dataset.ready = "true";
}
start();
