-- Beside Airflow's own database, which the image makes: both tools keep their schema's revision in a table of the same name.
CREATE DATABASE mlflow;
