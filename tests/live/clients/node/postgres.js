// postgres.js: prepares everything, sends many queries at once, fetches types at connect, listens on a connection apart.

const assert = require("node:assert/strict");
const postgres = require("postgres");
const { CLIENTS, scenario, together, until } = require("./scenarios.js");

const { PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE } = process.env;

const open = (options = {}) =>
  postgres({
    host: PGHOST,
    port: Number(PGPORT),
    user: PGUSER,
    pass: PGPASSWORD,
    database: PGDATABASE,
    max: CLIENTS,
    onnotice: () => {},
    ...options,
  });

async function withSql(work, options) {
  const sql = open(options);
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

const each = (work, options) => together((number) => withSql((sql) => work(sql, number), { max: 1, ...options?.(number) }));

scenario("a pool of twenty", () =>
  withSql((sql) =>
    together(async (number) => {
      const [row] = await sql`select ${number}::int as n, ${`text ${number}`} as t, ${[number, 1]}::int[] as l`;
      assert.deepEqual({ ...row }, { n: number, t: `text ${number}`, l: [number, 1] });
    }, 400),
  ));

scenario("statements of twenty connections", () =>
  each(async (sql, number) => {
    for (let turn = 0; turn < 15; turn++) {
      const [row] = await sql`select ${number}::int + ${turn}::int as n`;
      assert.equal(row.n, number + turn);
    }
    await assert.rejects(sql`select * from nowhere where n = ${number}`, { code: "42P01" });
    await assert.rejects(sql`select 1 / ${0}::int`, { code: "22012" });
    assert.equal((await sql`select ${number}::int as n`)[0].n, number);
  }));

scenario("many queries in one pipeline with errors in it", () =>
  each(async (sql, number) => {
    const answers = Array.from({ length: 30 }, (_, turn) =>
      turn % 10 === 7 ? assert.rejects(sql`select ${turn}::int / 0`, { code: "22012" }) : sql`select ${number}::int * ${turn}::int as n`,
    );
    const found = await Promise.all(answers);
    found.forEach((rows, turn) => turn % 10 === 7 || assert.equal(rows[0].n, number * turn));
  }));

scenario("transactions and savepoints", () =>
  withSql(async (sql) => {
    await sql`create table basket (client int, n int check (n < 100))`;
    await together(async (number) => {
      await sql.begin(async (sql) => {
        await sql`insert into basket values (${number}, 1)`;
        await assert.rejects(sql.savepoint((sql) => sql`insert into basket values (${number}, 100)`), { code: "23514" });
        await sql`insert into basket values (${number}, 2)`;
      });
      await assert.rejects(
        sql.begin("isolation level serializable", async (sql) => {
          assert.equal((await sql`show transaction_isolation`)[0].transaction_isolation, "serializable");
          await sql`insert into basket values (${number}, 3)`;
          throw new Error("enough");
        }),
        /enough/,
      );
      const answers = await sql.begin((sql) => [sql`select ${number}::int as n`, sql`select sum(n)::int as n from basket where client = ${number}`]);
      assert.deepEqual(answers.map(([row]) => row.n), [number, 3]);
    });
  }));

scenario("settings of a connection and its types", () =>
  each(
    async (sql, number) => {
      await sql`select set_config('myapp.tenant', ${`${number}`}, false)`;
      for (let turn = 0; turn < 5; turn++) {
        const [row] = await sql`select current_setting('myapp.tenant') as t, current_setting('search_path') as s`;
        assert.deepEqual({ ...row }, { t: `${number}`, s: `of${number}` });
        assert.equal((await sql`show statement_timeout`)[0].statement_timeout, `${number + 61}s`);
      }
      const when = new Date(Date.UTC(2024, 1, 29, 12));
      const [row] = await sql`select ${when}::timestamptz as d, ${sql.json({ n: number })} as j, ${Buffer.from([0, 255])}::bytea as b`;
      assert.deepEqual([row.d, row.j, [...row.b]], [when, { n: number }, [0, 255]]);
    },
    (number) => ({ connection: { search_path: `of${number}`, statement_timeout: (number + 61) * 1000, application_name: `c${number}` } }),
  ));

scenario("cursors", () =>
  withSql((sql) =>
    together(async (number) => {
      const found = [];
      await sql`select ${number}::int + n as v from generate_series(1, 50) n`.cursor(8, (rows) => {
        found.push(...rows.map((row) => row.v));
      });
      assert.deepEqual(found, Array.from({ length: 50 }, (_, n) => number + n + 1));
      for await (const [row] of sql`select ${number}::int as n from generate_series(1, 9)`.cursor()) assert.equal(row.n, number);
    }),
  ));

scenario("copy", () =>
  withSql(async (sql) => {
    const { pipeline } = require("node:stream/promises");
    const { Readable } = require("node:stream");
    await sql`create table sack (client int, t text)`;
    await together(async (number) => {
      const lines = Array.from({ length: 200 }, (_, n) => `${number}\trow ${n}\n`);
      await pipeline(Readable.from(lines), await sql`copy sack from stdin`.writable());
      let out = "";
      for await (const part of await sql.unsafe(`copy (select t from sack where client = ${number}) to stdout`).readable()) out += part;
      assert.equal(out.split("\n").length, 201);
    });
  }));

scenario("listening and notifying", async () => {
  const heard = Array.from({ length: CLIENTS }, () => []);
  const listeners = Array.from({ length: CLIENTS }, () => open({ max: 1 }));
  await together(async (number) => {
    await listeners[number].listen(`own ${number}`, (payload) => heard[number].push(payload));
    await listeners[number].listen("news", (payload) => heard[number].push(payload));
  });
  await withSql(async (sql) => {
    for (let number = 0; number < CLIENTS; number++) await sql.notify(`own ${number}`, `secret ${number}`);
    await sql.notify("news", "today");
    await until(() => heard.every((mine) => mine.length === 2), "all have heard both");
  });
  heard.forEach((mine, number) => assert.deepEqual(mine, [`secret ${number}`, "today"]));
  await together((number) => listeners[number].end({ timeout: 5 }));
});

scenario("a column added and a new connection", () =>
  withSql(async (sql) => {
    await sql`create table wall as select 1 as a`;
    await each(async (sql) => assert.deepEqual({ ...(await sql`select * from wall`)[0] }, { a: 1 }));
    await sql`alter table wall add column b int default 2`;
    await each(async (sql) => assert.deepEqual({ ...(await sql`select * from wall`)[0] }, { a: 1, b: 2 }));
    const named = await sql`select * from wall`.describe();
    assert.deepEqual(named.columns.map((column) => column.name), ["a", "b"]);
  }));

scenario("cancelling", () =>
  each(async (sql, number) => {
    if (number % 5 === 0) {
      await sql`select 1`; // connected: the driver sends a cancel that comes earlier than its query, and that is lost
      const sleep = sql`select pg_sleep(30)`;
      setTimeout(() => sleep.cancel(), 1000);
      await assert.rejects(sleep, { code: "57014" });
    }
    assert.equal((await sql`select ${number}::int as n`)[0].n, number);
  }));

scenario("a reserved connection", () =>
  withSql((sql) =>
    together(async (number) => {
      const mine = await sql.reserve();
      await mine`create temp table own_${mine.unsafe(`${number}`)} (n int)`;
      await mine`insert into ${mine(`own_${number}`)} values (${number})`;
      assert.equal((await mine`select n from ${mine(`own_${number}`)}`)[0].n, number);
      await mine`drop table ${mine(`own_${number}`)}`;
      mine.release();
    }),
  ));
