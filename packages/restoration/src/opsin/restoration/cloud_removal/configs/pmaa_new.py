# PMAA on Sen2_MTC_New: three dates of four bands to one picture of four.
_base_ = ["./_base_/sen2_mtc_new.py", "./_base_/adversarial_100e.py"]
