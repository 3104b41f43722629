"""Medical segmentation, classification and pretraining in 2D and 3D, on MONAI."""
