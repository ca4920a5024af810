"""`python -m course.engine`: papermill, which saves a running notebook once a second at most."""

from papermill.__main__ import papermill
from papermill.engines import NBClientEngine, papermill_engines


class PatientEngine(NBClientEngine):
    """Papermill's own engine, which saves less often.

    Papermill writes the notebook anew, with all its plots, whenever a cell starts or ends: 80 times in a session, which
    takes 2 of the 15 seconds of a quick run. At the end it saves once more, so nothing is lost.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        save = nb_man.save

        def save_sometimes(**changes):
            if (nb_man.now() - nb_man.last_save_time).total_seconds() > 1:
                save(**changes)

        nb_man.save = save_sometimes
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.save = save


if __name__ == "__main__":
    papermill_engines.register(None, PatientEngine)
    papermill()
