# PMAA on Sen2_MTC_Old: three dates of four bands to one picture of three.
_base_ = ["./_base_/sen2_mtc_old.py", "./_base_/adversarial_100e.py"]
model = dict(white=255, network=dict(out_channels=3), discriminator=dict(input_nc=15))
