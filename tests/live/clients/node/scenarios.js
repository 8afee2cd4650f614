// Scenarios by name: `node file.js NAME` runs one of them, and a failure is the exit code with its stack.
//
// A scenario is an async function. `together` runs one function for each of the twenty clients at the same time.

const CLIENTS = 20;
const SECONDS = 40;

const scenarios = new Map();

const scenario = (name, work) => scenarios.set(name, work);

const together = (work, count = CLIENTS) => Promise.all(Array.from({ length: count }, (_, number) => work(number)));

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function until(condition, what) {
  const end = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await pause(5);
  }
}

async function main() {
  const work = scenarios.get(process.argv[2]);
  if (!work) throw new Error(`no scenario ${process.argv[2]}`);
  setTimeout(() => fail(new Error("it hangs")), SECONDS * 1000).unref();
  await work();
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

process.on("unhandledRejection", fail);
setImmediate(() => main().catch(fail));

module.exports = { CLIENTS, scenario, together, pause, until };
