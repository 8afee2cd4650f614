// node-postgres: its pool and a query helper, named statements, transactions, LISTEN, cursors and streams.

const assert = require("node:assert/strict");
const { Client } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");
const { pool, query, withTransaction } = require("./db.js");
const { CLIENTS, scenario, together, pause, until } = require("./scenarios.js");

// Queries before the answer of the last is here are queued by node-postgres, which will not do it for ever.

async function withClient(work, options = {}) {
  const client = new Client(options);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const each = (work, options) => together((number) => withClient((client) => work(client, number), options?.(number)));

const value = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])[0];

const failsWith = (code, promise) => assert.rejects(promise, (error) => error.code === code);

// The program with one pool of twenty and a query helper.

scenario("one pool of twenty and a query helper", async () => {
  await query("create table visits (id serial primary key, visitor text not null, at timestamptz default now())");
  await together(async (number) => {
    const [row] = await query("insert into visits (visitor) values ($1) returning id, visitor", [`visitor ${number}`]);
    assert.equal(row.visitor, `visitor ${number}`);
    const [again] = await query("select visitor from visits where id = $1", [row.id]);
    assert.equal(again.visitor, `visitor ${number}`);
  }, 200);
  assert.equal(pool.totalCount, CLIENTS);
  await assert.rejects(query("insert into visits (visitor) values ($1)", [null]), /not-null/);
  const [{ count }] = await query("select count(*)::int from visits");
  assert.equal(count, 200);
  await pool.end();
});

scenario("transactions of the pool", async () => {
  await query("create table purse (id int primary key, coins int not null check (coins >= 0))");
  await query("insert into purse select n, 100 from generate_series(0, 4) n");
  const move = (from, to, coins) =>
    withTransaction(async (client) => {
      await client.query("select * from purse where id = any($1) order by id for update", [[from, to]]);
      await client.query("update purse set coins = coins - $1 where id = $2", [coins, from]);
      await client.query("update purse set coins = coins + $1 where id = $2", [coins, to]);
    });
  await together(async (number) => {
    for (let turn = 0; turn < 5; turn++) await move(number % 5, (number + 1 + (turn % 4)) % 5, 1 + turn);
    await failsWith("23514", move(number % 5, (number + 1) % 5, 10_000));
  });
  assert.equal((await query("select sum(coins)::int as all from purse"))[0].all, 500);
  await pool.end();
});

// Named statements.

scenario("a named statement with each clients own values", () =>
  each(async (client, number) => {
    for (let turn = 0; turn < 20; turn++) {
      const { rows } = await client.query({ name: "fetch", text: "select $1::int as n, $2::text as t", values: [number, `${turn}`] });
      assert.deepEqual(rows, [{ n: number, t: `${turn}` }]);
    }
  }));

scenario("the same name for another text in each client", () =>
  each(async (client, number) => {
    const mine = { name: "mine", text: `select ${number} + $1::int as n` };
    for (let turn = 0; turn < 10; turn++) {
      assert.equal((await client.query({ ...mine, values: [turn] })).rows[0].n, number + turn);
      await client.query("begin");
      assert.equal((await client.query({ ...mine, values: [turn] })).rows[0].n, number + turn);
      await client.query("rollback");
    }
    await assert.rejects(client.query({ name: "mine", text: "select 'another'" }), /must be unique/);
  }));

scenario("a named statement that fails to parse is free again", () =>
  each(async (client, number) => {
    for (let turn = 0; turn < 3; turn++) {
      await failsWith("42P01", client.query({ name: "late", text: `select * from late_${number}` }));
      await failsWith("22012", client.query({ name: "divide", text: "select 1 / $1::int", values: [0] }));
    }
    await client.query(`create table late_${number} as select ${number} as n`);
    const { rows } = await client.query({ name: "late", text: `select * from late_${number}` });
    assert.deepEqual(rows, [{ n: number }]);
  }));

scenario("a column added under a named statement", async () => {
  await query("create table roof as select 1 as a");
  const text = { name: "roof", text: "select * from roof" };
  await withClient(async (early) => {
    for (let turn = 0; turn < 3; turn++) assert.deepEqual((await early.query(text)).rows, [{ a: 1 }]);
    await query("alter table roof add column b int default 2");
    await each(async (client) => assert.deepEqual((await client.query(text)).rows, [{ a: 1, b: 2 }]));
    // node-postgres asks for the description each time, so both PostgreSQL's error and the new columns are right.
    await early.query(text).then(
      ({ rows }) => assert.deepEqual(rows, [{ a: 1, b: 2 }]),
      (error) => assert.equal(error.code, "0A000"),
    );
  });
  await pool.end();
});

scenario("deallocate all and discard all", () =>
  each(async (client, number) => {
    const text = { name: "mine", text: "select $1::int as n", values: [number] };
    assert.equal((await client.query(text)).rows[0].n, number);
    await client.query(number % 2 ? "deallocate all" : "discard all");
    await failsWith("26000", client.query(text)); // the driver believes that it is still there
    assert.equal(await value(client, "select $1::int", [number]), number);
  }));

// Sessions.

scenario("settings follow each client", () =>
  each(
    async (client, number) => {
      await client.query(`set myapp.tenant = 'tenant ${number}'; set search_path = of${number}`);
      await client.query("select set_config('lock_timeout', $1, false)", [`${number + 1}s`]);
      for (let turn = 0; turn < 5; turn++) {
        assert.equal(await value(client, "show myapp.tenant"), `tenant ${number}`);
        assert.equal(await value(client, "show search_path"), `of${number}`);
        assert.equal(await value(client, "show lock_timeout"), `${number + 1}s`);
        assert.equal(await value(client, "show statement_timeout"), `${number + 61}s`);
        assert.equal(await value(client, "show application_name"), `client ${number}`);
        assert.equal(await value(client, "show work_mem"), `${number + 5}MB`);
      }
      await client.query("begin; set myapp.tenant = 'undone'; rollback");
      assert.equal(await value(client, "show myapp.tenant"), `tenant ${number}`);
      await client.query("reset all");
      assert.equal(await value(client, "show statement_timeout"), `${number + 61}s`);
      assert.ok(["", null].includes(await value(client, "select current_setting('myapp.tenant', true)")));
    },
    (number) => ({
      statement_timeout: (number + 61) * 1000,
      application_name: `client ${number}`,
      options: `-c work_mem=${number + 5}MB`,
    }),
  ));

scenario("temporary tables and advisory locks", () =>
  each(async (client, number) => {
    await client.query("create temp table mine (n int)");
    await client.query("insert into mine values ($1)", [number]);
    await client.query("select pg_advisory_lock(815)");
    assert.equal(await value(client, "select n from mine"), number);
    assert.equal(await value(client, "select pg_advisory_unlock(815)"), true);
    await client.query("drop table mine");
    await failsWith("42P01", client.query("select n from mine"));
  }));

// LISTEN.

scenario("listeners hear while they are idle", async () => {
  const heard = Array.from({ length: CLIENTS }, () => []);
  const clients = await together(async (number) => {
    const client = new Client();
    await client.connect();
    client.on("notification", ({ channel, payload }) => heard[number].push([channel, payload]));
    await client.query(`listen "own ${number}"`);
    await client.query("listen news");
    return client;
  });
  for (let number = 0; number < CLIENTS; number++)
    await query("select pg_notify($1, $2)", [`own ${number}`, `${number}`]);
  await query("notify news, 'today'");
  await until(() => heard.every((mine) => mine.length === 2), "all have heard both");
  heard.forEach((mine, number) => assert.deepEqual(mine, [[`own ${number}`, `${number}`], ["news", "today"]]));
  await together((number) => (number % 2 ? clients[number].query("unlisten *") : clients[number].query("select 1")));
  await query("notify news, 'again'");
  await until(() => heard.every((mine, number) => mine.length === (number % 2 ? 2 : 3)), "half have heard it again");
  await pause(50);
  heard.forEach((mine, number) => assert.equal(mine.length, number % 2 ? 2 : 3));
  await together((number) => clients[number].end());
  await pool.end();
});

// Rows in parts, errors, cancelling.

scenario("cursors and streams", () =>
  each(async (client, number) => {
    await client.query("begin");
    const text = "select $1::int * 1000 + n as v from generate_series(1, 100) n";
    const cursor = client.query(new Cursor(text, [number]));
    assert.deepEqual((await cursor.read(30)).map((row) => row.v)[29], number * 1000 + 30);
    assert.equal((await cursor.read(100)).length, 70);
    await cursor.close();
    await client.query("commit");
    const found = [];
    for await (const row of client.query(new QueryStream(text, [number], { batchSize: 9 }))) found.push(row.v);
    assert.deepEqual(found, Array.from({ length: 100 }, (_, n) => number * 1000 + n + 1));
    const half = client.query(new Cursor(text, [number]));
    await half.read(5);
    await half.close();
    assert.equal(await value(client, "select $1::int", [number]), number);
  }));

scenario("queries queued before any answer", () =>
  each(async (client, number) => {
    const answers = [];
    for (let turn = 0; turn < 10; turn++) {
      answers.push(client.query({ name: `s${turn % 3}`, text: `select $1::int + ${turn % 3} as n`, values: [number] }));
      answers.push(assert.rejects(client.query("select * from nowhere"), { code: "42P01" }));
      answers.push(client.query(`select ${number} as n`));
    }
    const found = (await Promise.all(answers)).filter(Boolean).map((result) => result.rows[0].n);
    assert.deepEqual(found, Array.from({ length: 10 }, (_, turn) => [number + (turn % 3), number]).flat());
  }));

scenario("timeouts and notices", () =>
  each(async (client, number) => {
    const notices = [];
    client.on("notice", (notice) => notices.push(notice.message));
    await client.query("set statement_timeout = 100");
    if (number % 5 === 0) await failsWith("57014", client.query("select pg_sleep(10)"));
    await client.query("reset statement_timeout");
    await client.query(`do $$ begin raise notice 'for ${number}'; end $$`);
    assert.deepEqual(notices, [`for ${number}`]);
    assert.equal(await value(client, "select $1::int", [number]), number);
  }));
