"""Finding, creating and claiming the row of a study, within a transaction."""

from __future__ import annotations

import difflib
import uuid

from sqlmodel import Session, col, select

from orchestrator.store.claims import LAPSE_S, is_live
from orchestrator.store.errors import StudyExists, StudyInUse, StudyNotFound
from orchestrator.store.models import Study
from orchestrator.store.records import Holder, NewStudy, StudyRecord, StudyStatus, digest_of
from orchestrator.store.rows import holder_of, set_holder, spaces_to_json, study_record


def create(session: Session, new: NewStudy, here: Holder) -> StudyRecord:
    """Insert a study that this process holds. Raises StudyExists."""
    taken = session.exec(select(Study).where(Study.name == new.name)).first()
    if taken is not None:
        raise StudyExists(f"study {new.name!r} exists since {taken.created_at:%Y-%m-%d %H:%M} UTC "
                          f"({record(taken, here).status}): continue it with --resume, or choose another "
                          "name with --study")
    space = spaces_to_json(new.spaces)
    config = dict(new.config)
    row = Study(id=uuid.uuid4(), name=new.name, created_at=here.heartbeat_at, seed=new.seed,
                status=StudyStatus.RUNNING.value, config=config, config_digest=digest_of(config),
                model_digest=new.model_digest, space=space, space_digest=digest_of(space),
                tool_versions=dict(new.tool_versions))
    set_holder(row, here)
    session.add(row)
    session.flush()
    return record(row, here)


def find(session: Session, study: uuid.UUID | str) -> Study:
    """Return a study's row by id or by name. Raises StudyNotFound, naming the nearest ones."""
    if isinstance(study, uuid.UUID):
        row = session.get(Study, study)
        if row is None:
            raise StudyNotFound(f"no study has the id {study}: it was deleted meanwhile")
        return row
    row = session.exec(select(Study).where(Study.name == study)).first()
    if row is not None:
        return row
    names = list(session.exec(select(Study.name).order_by(col(Study.created_at).desc())))
    if not names:
        raise StudyNotFound(f"no study is called {study!r}: the store is empty; is --store right?")
    near = difflib.get_close_matches(study, names, n=3, cutoff=0.5)
    quoted = ", ".join(map(repr, near or names[:3]))
    hint = f"did you mean {quoted}?" if near else f"the newest are {quoted}"
    raise StudyNotFound(f"no study is called {study!r}; {hint} ('orchestrator studies list' shows all)")


def claim(session: Session, study_id: uuid.UUID, here: Holder) -> StudyRecord:
    """Make this process the study's holder. Raises StudyInUse, StudyNotFound."""
    row = find(session, study_id)
    refuse_others(row, here)
    set_holder(row, here)
    row.status = StudyStatus.RUNNING.value
    return record(row, here)


def refuse_others(row: Study, here: Holder) -> None:
    """Raise StudyInUse when another live controller holds the study."""
    holder = holder_of(row)
    if holder is None or holder.token == here.token or not is_live(holder, here):
        return
    if (holder.host, holder.boot) == (here.host, here.boot):
        advice = "wait for it, or stop it"
    else:
        advice = f"wait for it, or stop it there; its claim lapses {LAPSE_S:.0f} s after its last heartbeat"
    raise StudyInUse(f"study {row.name!r} is in use by process {holder.pid} on {holder.host} (last heartbeat "
                     f"{holder.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC): {advice}")


def check_own(row: Study, here: Holder) -> None:
    """Raise StudyInUse unless this process holds the study."""
    holder = holder_of(row)
    if holder is None or holder.token != here.token:
        other = "nobody holds it" if holder is None else f"process {holder.pid} on {holder.host} took it over"
        raise StudyInUse(f"study {row.name!r} is no longer ours: {other}; continue it with --resume")


def release(row: Study, here: Holder, status: StudyStatus) -> None:
    """Clear our claim. Raises StudyInUse when it is not ours."""
    check_own(row, here)
    set_holder(row, None)
    row.status = status.value


def record(row: Study, here: Holder) -> StudyRecord:
    """Make a record whose status says whether a live controller stands behind it."""
    holder = holder_of(row)
    return study_record(row, held=holder is not None and is_live(holder, here))
