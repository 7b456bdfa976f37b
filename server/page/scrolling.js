// Keeps the end of a growing page in view, as long as the reader is there.

const NEAR_PX = 60;

export class Follower {
  // `button` is shown while the reader is elsewhere, and leads back.
  constructor(button) {
    this.button = button;
    this.isAtEnd = true;
    this.look = () => {
      this.isAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - NEAR_PX;
      this.button.hidden = this.isAtEnd;
    };
    button.addEventListener("click", () => this.go());
    for (const event of ["scroll", "resize"]) addEventListener(event, this.look, { passive: true });
  }

  go() {
    this.isAtEnd = true;
    this.follow();
  }

  follow() {
    if (this.isAtEnd) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
    else this.button.hidden = false;
  }

  close() {
    for (const event of ["scroll", "resize"]) removeEventListener(event, this.look);
  }
}
