"""A run watched stage by stage and source by source, for its progress and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncbatch.sections import SinkReport, SourceReport, Stages
from asyncbatch.tally import Tally, tally_of

if TYPE_CHECKING:
    from asyncbatch.executors.lanes import Engine
    from asyncbatch.intake import Intake
    from asyncbatch.job import Job
    from asyncbatch.records import BatchPart
    from asyncbatch.report import Report


class Watch:
    """Keeps the sections of a report, which has none without this."""

    def __init__(self, job: Job, intake: Intake, report: Report) -> None:
        self._job, self._intake, self._report = job, intake, report
        self._worked = Tally()
        self._is_over = False
        report.sources = [SourceReport(source.name, source.kind) for source in job.sources]
        if (target := job.target) is not None and target.form != "parts":
            mode = target.mode if target.is_database else None
            report.sink = SinkReport(target.name, target.table, mode, target.key)

    def take(self, found: BatchPart) -> None:
        """Take note of what has come out of a worker."""
        tally = tally_of(found.part)
        if found.part.rows is not None:
            tally.written += found.part.rows.count
        self._worked += tally
        self._report.sources[found.batch.source].extracted += tally.read

    def look(self, *, is_over: bool = False) -> None:
        """Bring the report's sections up to date, for good once the run `is_over`."""
        self._is_over = self._is_over or is_over
        for number, source in enumerate(self._report.sources):
            source.found, source.is_complete = self._intake.inputs_of(number)
            source.traffic = self._intake.traffic_of(number)
            source.judge(is_over=self._is_over, limit=self._job.limit)

    def stages(self, engine: Engine | None) -> Stages:
        """Return how far the run is, with an engine if it has one already."""
        self.look()
        lanes = len(engine.lanes) if engine else 0
        return Stages(self._worked, self._report.sources, self._intake.waiting, lanes)
