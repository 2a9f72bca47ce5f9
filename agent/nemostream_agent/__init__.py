"""Programs on top of the plugin: captions for a room, an example of a voice agent, the demo."""
