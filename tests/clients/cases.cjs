// What the scripts of Node.js have in common: `cases.py` says what they are given and print.
'use strict';

const prompt = process.env.STRONGROOM_PROMPT ?? 'Say hello.';

function failure(error) {
  const { constructor, name, message } = error;
  return {
    class: constructor.name.replace(/^_/, ''),
    name,
    status: error.status ?? error.statusCode ?? null,
    message,
  };
}

async function main(calls) {
  const call = async (one, case_) => {
    try {
      return await one(case_);
    } catch (error) {
      return { failed: failure(error) };
    }
  };
  const got = {};
  for (const case_ of JSON.parse(process.env.STRONGROOM_CASES)) {
    const of = (got[case_.name] = {});
    for (const [name, one] of Object.entries(calls)) of[name] = await call(one, case_);
    const wrong = await call(Object.values(calls)[0], { ...case_, key: case_.wrong_key });
    of.refused = wrong.failed ?? { class: 'none' };
  }
  process.stdout.write(JSON.stringify(got));
}

module.exports = { main, prompt };
