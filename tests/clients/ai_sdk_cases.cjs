// Calls providers that speak OpenAI's format with Vercel's AI SDK; see `cases.cjs`. Unless it is told
// otherwise this SDK uses OpenAI's responses; a case without `responses` is called with chat completions.
'use strict';

const { createOpenAI } = require('@ai-sdk/openai');
const { generateText, streamText } = require('ai');
const { main, prompt } = require('./cases.cjs');

function ask({ base_url: baseURL, key: apiKey, model, responses }) {
  const provider = createOpenAI({ baseURL, apiKey });
  const chosen = responses ? provider(model) : provider.chat(model);
  return { model: chosen, prompt, maxRetries: 0 };
}

async function plain(case_) {
  const { text, usage, finishReason } = await generateText(ask(case_));
  return { text, tokens: usage.totalTokens, finish: finishReason };
}

async function stream(case_) {
  const failed = [];
  const answer = streamText({ ...ask(case_), onError: ({ error }) => failed.push(error) });
  const pieces = [];
  for await (const piece of answer.textStream) pieces.push(piece);
  // This SDK does not throw in a stream.
  if (failed.length > 0) throw failed[0];
  const [finish, { totalTokens: tokens }] = [await answer.finishReason, await answer.usage];
  return { pieces, tokens, finish };
}

main({ plain, stream });
