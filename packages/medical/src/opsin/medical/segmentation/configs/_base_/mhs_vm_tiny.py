# A MHS-VM of 0.3 million parameters for yes or no.
model = dict(
    type="opsin.MedicalSegmentor",
    network=dict(type="opsin.MHSVM", arch="tiny"),
    loss=dict(type="opsin.BCEDiceLoss"),
)
