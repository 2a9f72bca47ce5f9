/** The first page: what there is here. */

import "../styles/home.css";
import { adoptKey, config } from "../config";
import { element } from "../dom";
import { pageError } from "../errors";
import { KeyBox } from "../keybox";
import { theme } from "../theme";

adoptKey();
theme();
const keyBox = new KeyBox();
keyBox.onKey = () => void show();
keyBox.onError = (error) => fail(error.message);
void show();

async function show(): Promise<void> {
  try {
    const found = await config();
    fail("");
    element("room-door").hidden = !found.livekit;
    const model = found.model ? `Model ${found.model}` : "The embedded model";
    element("about").textContent =
      `${model}, up to ${found.max_streams} speakers at once. Version ${found.version}.`;
    document.body.dataset.state = "idle";
  } catch (error) {
    const told = pageError(error);
    fail(told.message);
    if (told.kind === "key") keyBox.ask();
  }
}

function fail(sentence: string): void {
  element("error").textContent = sentence;
  document.body.dataset.state = sentence ? "error" : "idle";
}
