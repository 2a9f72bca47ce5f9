/** Captions over a WebSocket, and of a recording. */

import "../styles/studio.css";
import { input } from "../dom";
import { Recording } from "../recording";
import { connectSocket } from "../socket";
import { Studio } from "../studio";

const studio = new Studio({
  title: () => recording.title ?? "captions",
  connect: connectSocket,
  sentences: { stopped: "Finished" },
  onState: (state) => {
    if (state === "connecting") recording.forget();
  },
});
const recording = new Recording(input("file"), studio);
