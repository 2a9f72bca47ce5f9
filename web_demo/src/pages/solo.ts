/** Captions without a LiveKit server: the microphone over WHIP, captions on a data channel. */

import "../styles/studio.css";
import { address, config } from "../config";
import { overlayLink } from "../overlaylink";
import { connectPeer } from "../peer";
import { Place } from "../place";
import { Studio } from "../studio";

const place = new Place();

new Studio({
  title: () => place.room,
  ready: () => place.valid,
  connect: async (track, hear, signal) => {
    const { ice_servers } = await config(signal);
    const endpoint = address(`whip/${encodeURIComponent(place.room)}`);
    if (place.name) endpoint.searchParams.set("name", place.name);
    return connectPeer(endpoint, ice_servers, track, hear, signal);
  },
});
overlayLink(() => place.room);
