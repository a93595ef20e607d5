"""Nodes that are taken away."""

import time

import pytest
from azure.ai.ml import Output

from phi3_assets_tests.azure_standin.submitting import ROOT, log_of, submit

pytestmark = pytest.mark.azure

COUNT = (
    "f=${{outputs.checkpoints}}/n; n=$(cat $f 2>/dev/null || echo 0); echo from $n; touch here; ls here*; "
    "while [ $n -lt 60 ]; do n=$((n+1)); echo $n > $f.tmp; mv $f.tmp $f; sleep 0.05; done; echo done $n"
)
WATCH = (
    "for i in $(seq 25); do curl -s -H 'Metadata: true' "
    "'http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01' > now; "
    "cmp -s now last || { cat now; echo; }; cp now last; sleep 0.05; done"
)


def counting(clients):
    outputs = {"checkpoints": Output(type="uri_folder", path=f"{ROOT}/checkpoints/", mode="rw_mount")}
    return submit(clients, COUNT, outputs=outputs, compute="spot-cluster")


def test_twice_and_it_goes_on_under_its_name_where_the_mount_stood(azure, clients):
    name = counting(clients)
    for attempt in (1, 2):
        azure.wait_for(name, "Running", attempt=attempt)
        azure.preempt(name, notice_s=0.7)
    job = azure.wait_for(name, "Completed")
    assert job["attempt"] == 3
    assert job["history"].count("Queued") == 2
    log = log_of(clients, name)
    assert "from 0" not in log
    assert "done 60" in log
    assert clients.container.download_blob("checkpoints/n").readall() == b"60\n"
    assert [blob.name for blob in clients.container.list_blobs("checkpoints/")] == ["checkpoints/n"]


def test_what_is_announced_is_seen_on_the_nodes_and_may_be_withdrawn(azure, clients):
    name = submit(clients, WATCH)
    azure.wait_for(name, "Running")
    time.sleep(0.5)
    azure.announce(name)
    time.sleep(0.5)
    azure.withdraw(name)
    azure.wait_for(name, "Completed")
    log = log_of(clients, name)
    assert log.count('"Preempt"') == 1
    assert log.index('"Events": []') < log.index('"Preempt"') < log.rindex('"Events": []')


def test_the_service_may_fail_a_job_instead_of_restarting_it(azure, clients):
    name = submit(clients, "sleep 100", compute="spot-cluster")
    azure.wait_for(name, "Running")
    azure.doom(name)
    azure.wait_for(name, "Failed")
    error = clients.ml.jobs._runs_operations.get_run_data(name).run_metadata.error.error
    assert (error.code, "pre-empted" in error.message) == ("PreemptionError", True)
