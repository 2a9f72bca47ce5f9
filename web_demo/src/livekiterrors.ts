/** What livekit-client says, as sentences. */

import { ConnectionError, DisconnectReason } from "livekit-client";
import { PageError } from "./errors";

/** Of joining a room. */
export function connectionError(error: unknown): PageError {
  if (error instanceof ConnectionError && error.status === 401)
    return new PageError(
      "refused",
      "The LiveKit server refused the token: its key and the gateway's differ.",
    );
  return new PageError("away", "The LiveKit server does not answer.");
}

/** Of a room that was left against our will. */
export function disconnected(reason: DisconnectReason | undefined): PageError {
  if (reason === DisconnectReason.DUPLICATE_IDENTITY)
    return new PageError(
      "refused",
      "You joined this room again from elsewhere: press Start to come back here.",
    );
  if (reason === DisconnectReason.PARTICIPANT_REMOVED || reason === DisconnectReason.ROOM_DELETED)
    return new PageError("refused", "The room was closed: press Start to open it again.");
  return new PageError("away", "The LiveKit server does not answer.");
}
