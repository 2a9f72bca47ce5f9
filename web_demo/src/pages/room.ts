/** Captions in a LiveKit room. */

import "../styles/studio.css";
import { button } from "../dom";
import { join, type LiveKitRoom } from "../livekit";
import { overlayLink } from "../overlaylink";
import { Place } from "../place";
import { Studio } from "../studio";

const place = new Place();
const sound = button("sound");
let room: LiveKitRoom | undefined;
let muted = false;
/** The browser plays no sound before somebody has touched the page. */
let held = false;

const studio = new Studio({
  title: () => place.room,
  ready: () => place.valid,
  echo: true,
  connect: async (track, hear, signal) => {
    const hooks = {
      hear,
      onConnected: (whole: boolean) => studio.mended(whole),
      onSound: (heard: boolean) => holdSound(!heard),
    };
    const joined = await join({ room: place.room, name: place.name, viewer: false }, hooks, signal);
    joined.sound.muted = muted;
    room = joined;
    await joined.publish(track);
    return joined;
  },
});

sound.addEventListener("click", () => {
  if (held) {
    void room?.startSound();
    return;
  }
  muted = !muted;
  if (room) room.sound.muted = muted;
  showSound();
});
overlayLink(() => place.room, { livekit: "1" });
showSound();

function holdSound(now: boolean): void {
  held = now;
  showSound();
}

function showSound(): void {
  sound.textContent = held ? "Play the others" : muted ? "Hear the others" : "Mute the others";
  sound.setAttribute("aria-pressed", String(muted));
}
