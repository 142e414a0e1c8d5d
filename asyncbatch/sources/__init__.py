"""Where inputs come from: async iterators of chunks of paths; nothing is read here."""
