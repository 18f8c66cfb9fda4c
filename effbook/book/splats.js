// Looks at two scenes of Gaussians side by side, turned together. Classic script: it must work from a file, too.
// Before it in the bundle: `three` and `spark`, the exports of the two libraries.
(function () {
  const { THREE, SplatMesh, SparkRenderer } = globalThis.effbookSplats;

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  // One camera for all panes: two angles and a distance around a point.
  function orbit(panes, look) {
    const state = { around: 0.6, up: 0.5, far: look.distance };
    function place() {
      const flat = Math.cos(state.up) * state.far;
      for (const pane of panes) {
        pane.camera.position.set(
          look.target[0] + flat * Math.cos(state.around),
          look.target[1] + flat * Math.sin(state.around),
          look.target[2] + Math.sin(state.up) * state.far,
        );
        pane.camera.lookAt(...look.target);
        pane.wake();
      }
    }
    function turn(dx, dy) {
      state.around -= dx * 0.01;
      state.up = Math.min(1.5, Math.max(-0.2, state.up + dy * 0.01));
      place();
    }
    for (const { canvas } of panes) {
      let last = null;
      canvas.addEventListener("pointerdown", (e) => {
        last = [e.clientX, e.clientY];
        canvas.setPointerCapture(e.pointerId);
      });
      canvas.addEventListener("pointermove", (e) => {
        if (last) turn(e.clientX - last[0], e.clientY - last[1]);
        if (last) last = [e.clientX, e.clientY];
      });
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
      canvas.addEventListener(
        "wheel",
        (e) => {
          e.preventDefault();
          state.far = Math.min(3 * look.distance, Math.max(0.3 * look.distance, state.far * (1 + e.deltaY * 0.001)));
          place();
        },
        { passive: false },
      );
      canvas.addEventListener("keydown", (e) => {
        const moves = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10] };
        if (moves[e.key]) {
          e.preventDefault();
          turn(...moves[e.key]);
        }
      });
    }
    place();
  }

  function pane(canvas, look) {
    const renderer = new THREE.WebGLRenderer({ canvas, antialias: false, preserveDrawingBuffer: true });
    renderer.setSize(canvas.width, canvas.height, false);
    const scene = new THREE.Scene();
    scene.background = new THREE.Color(...look.background);
    scene.add(new SparkRenderer({ renderer }));
    const camera = new THREE.PerspectiveCamera(look.fov, canvas.width / canvas.height, 0.05, 100);
    camera.up.set(0, 0, 1);
    let shown = null;
    async function show(one) {
      const mesh = new SplatMesh({ fileBytes: bytes(one.data), fileName: "scene.spz" });
      mesh.quaternion.set(1, 0, 0, 0); // .spz is right, up, back; the scene is right, down, front
      await mesh.initialized;
      if (shown) {
        scene.remove(shown);
        shown.dispose();
      }
      shown = mesh;
      scene.add(mesh);
      wake();
    }
    // Sorting goes on after a frame, so a few more are drawn; then the pane rests until something moves.
    let frames = 0;
    const wake = () => (frames = 60);
    renderer.setAnimationLoop(() => frames-- > 0 && renderer.render(scene, camera));
    return { canvas, camera, show, wake };
  }

  globalThis.effbookSplats.open = function (root, told) {
    const canvases = [...root.querySelectorAll("canvas")];
    const labels = [...root.querySelectorAll(".splats-label")];
    let panes;
    try {
      panes = canvases.map((canvas) => pane(canvas, told.look));
    } catch (error) {
      labels[0].textContent = "This browser cannot draw in 3D (WebGL 2 is off).";
      return;
    }
    orbit(panes, told.look);
    async function show(which, name) {
      labels[which].textContent = "loading";
      await panes[which].show(told.scenes[name]);
      labels[which].textContent = told.scenes[name].label;
    }
    show(0, told.first);
    const select = root.querySelector("select");
    select.disabled = false;
    select.addEventListener("change", () => show(1, select.value));
    show(1, select.value);
  };
})();
