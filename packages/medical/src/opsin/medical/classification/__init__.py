"""Classification of medical images: MedMNIST and image folders, with the measures of that field."""
