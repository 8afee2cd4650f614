"""What the depot keeps. Its migrations are written by hand, as a change of the schema in steps."""

from django.db import models


class Shelf(models.Model):
    """Belongs to one client of the tests."""

    client = models.IntegerField(unique=True)
    label = models.CharField(max_length=40, default="")

    class Meta:
        app_label = "depot"


class Box(models.Model):
    """Stands on a shelf."""

    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE, related_name="boxes")
    weight = models.IntegerField()
    words = models.JSONField(default=dict)

    class Meta:
        app_label = "depot"
        constraints = (models.CheckConstraint(condition=models.Q(weight__gte=0), name="weight_is_positive"),)
