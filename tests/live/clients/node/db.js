// One pool for the whole program and a helper to ask it: the way to use node-postgres. Where the database is, is said
// by the environment (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE).

const { Pool } = require("pg");

const pool = new Pool({ max: 20, idleTimeoutMillis: 30_000, connectionTimeoutMillis: 10_000 });

pool.on("error", (error) => console.error("a connection broke while idle:", error.message));

async function query(text, values) {
  const result = await pool.query(text, values);
  return result.rows;
}

async function withTransaction(work) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const result = await work(client);
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

module.exports = { pool, query, withTransaction };
