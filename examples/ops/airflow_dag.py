"""A night as an Airflow DAG: the first try runs, later ones resume what the first left.

Put it into the dags folder of Airflow 3. The worker needs the `nightrank` command. Exit code 99
(nothing to do) marks the task as skipped; the line of JSON that a run ends with goes to XCom.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

NIGHT = """
if [ {{ ti.try_number }} -gt 1 ]; then
    nightrank resume shop.toml --home home && exit 0
    code=$?
    [ $code -eq 99 ] || exit $code  # 99: the first try left nothing to go on with
fi
exec nightrank run shop.toml --as-of {{ data_interval_end.strftime('%Y-%m-%d') }} \\
    --root /srv/shop --home home
"""

with DAG(
    dag_id="nightrank",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
) as dag:
    BashOperator(
        task_id="night",
        bash_command=NIGHT,
        cwd="/srv/nightrank",
        skip_on_exit_code=99,
        retries=2,
        retry_delay=timedelta(minutes=10),
    )
