/** What the others in a room say, played. */

import type { RemoteAudioTrack, RemoteTrack } from "livekit-client";

export class Sound {
  private readonly elements = new Set<HTMLMediaElement>();
  private mute = false;

  set muted(muted: boolean) {
    this.mute = muted;
    for (const element of this.elements) element.muted = muted;
  }

  add(track: RemoteAudioTrack): void {
    const element = track.attach();
    element.muted = this.mute;
    this.elements.add(element);
    document.body.append(element);
  }

  remove(track: RemoteTrack): void {
    for (const element of track.detach()) this.drop(element);
  }

  clear(): void {
    for (const element of this.elements) this.drop(element);
  }

  private drop(element: HTMLMediaElement): void {
    this.elements.delete(element);
    element.remove();
  }
}
