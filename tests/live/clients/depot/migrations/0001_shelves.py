"""Shelves without labels, and boxes."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """The first tables."""

    initial = True
    operations = (
        migrations.CreateModel(
            "Shelf",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("client", models.IntegerField(unique=True)),
            ],
        ),
        migrations.CreateModel(
            "Box",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("weight", models.IntegerField()),
                ("words", models.JSONField(default=dict)),
                (
                    "shelf",
                    models.ForeignKey(
                        to="depot.shelf", on_delete=django.db.models.deletion.CASCADE, related_name="boxes"
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            "box", models.CheckConstraint(condition=models.Q(weight__gte=0), name="weight_is_positive")
        ),
    )
