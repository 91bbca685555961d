-- What the service has: its orders, and the outbox with the columns of Debezium's event router.
CREATE TABLE orders (id text PRIMARY KEY, version bigint NOT NULL);

CREATE TABLE outbox (
    id            uuid PRIMARY KEY,
    aggregatetype varchar(255) NOT NULL,
    aggregateid   varchar(255) NOT NULL,
    type          varchar(255) NOT NULL,
    payload       jsonb
);

-- What the judge compares with: every event, written in the transaction that writes its outbox row.
CREATE TABLE journal (id uuid PRIMARY KEY, order_id text NOT NULL, version bigint NOT NULL);
