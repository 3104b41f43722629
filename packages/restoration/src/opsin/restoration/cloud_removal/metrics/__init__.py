"""How near a restored picture is to the cloud-free one."""

from opsin.restoration.cloud_removal.metrics.cloud_removal import CloudRemovalMetric

__all__ = ["CloudRemovalMetric"]
