"""The cluster's nodes, which are simulated (`simulated`), and the worker image as a node would run it (`build`)."""
