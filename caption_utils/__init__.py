"""Image captioning with attention after *Show, Attend and Tell*: the package behind the notebooks."""
