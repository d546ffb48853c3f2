"""The sandbox: the `local` stack on a local AWS (MiniStack), with simulated devices. Nothing here
can reach AWS."""
