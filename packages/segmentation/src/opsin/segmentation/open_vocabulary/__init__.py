"""Open-vocabulary segmentation: the classes are names that a person gives, at prediction time too."""
