/* A Worker for pages that are opened as files, where browsers start none: it runs in a frame.

The search of the site needs one. The builder would load a script from a server for it. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #isLoaded = false;
    #waiting = [];

    constructor(url) {
      super();
      this.#frame.hidden = true;
      document.body.append(this.#frame);
      const inner = this.#frame.contentWindow;
      inner.postMessage = (data) => setTimeout(() => {
        const event = new MessageEvent("message", { data });
        this.onmessage?.(event);
        this.dispatchEvent(event);
      });
      const script = inner.document.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = () => {
        this.#isLoaded = true;
        this.#waiting.splice(0).forEach((data) => this.postMessage(data));
      };
      inner.document.head.append(script);
    }

    postMessage(data) {
      if (!this.#isLoaded) {
        this.#waiting.push(data);
        return;
      }
      const inner = this.#frame.contentWindow;
      setTimeout(() => inner.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
