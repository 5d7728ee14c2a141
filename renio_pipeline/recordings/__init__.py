"""Recorded teachers: a folder of responses with a teacher's signals, which ``renio score`` writes and runs train from.

    manifest.json              what must be the same for a run to use it: tokenizer, τ, vocabulary, signals, teachers
    part-000001.parquet        a row for each response: ids, keys, length, text
    part-000001.safetensors    their arrays end to end, in the order of the rows

Begin with ``manifest.py``; ``fits.py`` says which runs may use a recording, ``keys.py`` by what a response is found.
``parts.py`` writes a part and reads its table, ``arrays.py`` its arrays; ``recording.py`` reads a folder, ``recorder.py`` adds
to one. A part is there when its Parquet file is: it is written last, whole or not at all. Files are read as JSON, Parquet and
safetensors alone, so none of them can execute anything. The stages around a recording are ``renio_pipeline.stages.recorded``
(of a run) and ``renio_pipeline.stages.scoring`` (of ``renio score``).
"""
