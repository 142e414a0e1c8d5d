"""Events as they come, through transforms, into windows."""
