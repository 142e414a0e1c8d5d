"""Object stores: what their URLs mean, how they are opened, and what goes wrong there."""
