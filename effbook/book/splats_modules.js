// Both libraries are CommonJS modules; Spark needs one small class of three.js's examples, which is not in its bundle.
globalThis.effbookSplats = {};
(function () {
  const modules = {};
  function require(name) {
    if (!(name in modules)) throw new Error("no module " + name);
    return modules[name];
  }
  {
    const module = { exports: {} }, exports = module.exports;
    (function (module, exports) { /* three */
    })(module, exports);
    modules["three"] = module.exports;
  }
  const THREE = modules["three"];
  class FullScreenQuad {
    constructor(material) {
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.Float32BufferAttribute([-1, 3, 0, -1, -1, 0, 3, -1, 0], 3));
      geometry.setAttribute("uv", new THREE.Float32BufferAttribute([0, 2, 0, 0, 2, 0], 2));
      this.mesh = new THREE.Mesh(geometry, material);
      this.camera = new THREE.OrthographicCamera(-1, 1, 1, -1, 0, 1);
    }
    get material() { return this.mesh.material; }
    set material(value) { this.mesh.material = value; }
    render(renderer) { renderer.render(this.mesh, this.camera); }
    dispose() { this.mesh.geometry.dispose(); }
  }
  modules["three/addons/postprocessing/Pass.js"] = { FullScreenQuad };
  {
    const module = { exports: {} }, exports = module.exports;
    (function (module, exports, require) { /* spark */
    })(module, exports, require);
    Object.assign(globalThis.effbookSplats, { THREE }, module.exports);
  }
})();
