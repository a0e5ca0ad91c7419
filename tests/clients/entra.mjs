// Stands in for Entra: the token endpoint of oidc-provider, at the path that Entra has, with one
// application of one tenant. Prints its port when it serves. Modules are found in
// the folder $1.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.argv[2]}/`);
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));
const scope = 'https://cognitiveservices.azure.com/.default';

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [{
      client_id: '11111111-2222-3333-4444-555555555555',
      client_secret: 'abc8Q~notarealsecret+&=%notarealsecretnot',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: 'client_secret_post',
      scope,
    }],
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    routes: { token: '/t.example/oauth2/v2.0/token' },
    scopes: [scope],
    ttl: { ClientCredentials: 1800 },
  });
  server.on('request', provider.callback());
  console.log(port);
});
