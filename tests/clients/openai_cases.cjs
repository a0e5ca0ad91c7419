// Calls providers that speak OpenAI's format with OpenAI's own SDK for Node.js; see `cases.cjs`.
'use strict';

const { OpenAI } = require('openai');
const { main, prompt } = require('./cases.cjs');

const client = ({ base_url: baseURL, key: apiKey }) =>
  new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
const ask = (model) => ({ model, messages: [{ role: 'user', content: prompt }] });

async function plain(case_) {
  const answer = await client(case_).chat.completions.create(ask(case_.model));
  const [{ message, finish_reason: finish }] = answer.choices;
  return { text: message.content, tokens: answer.usage.total_tokens, finish };
}

async function stream(case_) {
  const events = await client(case_).chat.completions.create({ ...ask(case_.model), stream: true });
  const choices = [];
  for await (const { choices: [choice] } of events) if (choice) choices.push(choice);
  const pieces = choices.map(({ delta }) => delta.content).filter(Boolean);
  return { pieces, finish: choices.at(-1).finish_reason };
}

async function response({ responses, ...case_ }) {
  if (!responses) return null;
  const answer = await client(case_).responses.create({ model: case_.model, input: prompt });
  return { text: answer.output_text, finish: answer.status };
}

main({ plain, stream, response });
