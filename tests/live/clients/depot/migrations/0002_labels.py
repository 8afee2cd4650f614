"""Each shelf gets a label: a column, filled by a program, and an index made without a lock."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


def fill(apps, _schema_editor):
    for shelf in apps.get_model("depot", "Shelf").objects.iterator(chunk_size=7):
        shelf.label = f"shelf {shelf.client}"
        shelf.save()


class Migration(migrations.Migration):
    """Outside of a transaction, because of the index."""

    atomic = False
    dependencies = (("depot", "0001_shelves"),)
    operations = (
        migrations.AddField("shelf", "label", models.CharField(max_length=40, default="")),
        migrations.RunPython(fill, migrations.RunPython.noop),
        AddIndexConcurrently("shelf", models.Index(fields=["label"], name="label_index")),
    )
