// @valkey/valkey-glide 2.5 or later
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
export const @cache@Addresses = {
@each inside@
  @inside@: [@outside@, @port@], // @label@
@endeach inside@
};

// const client = await @client@.createClient(@cache@Cache);
export const @cache@Cache = {
  addresses: [
@each nodes@
    { host: @outside@, port: @port@ },
@endeach nodes@
  ],
  addressResolver: (host, port) => @cache@Addresses[`${host}:${port}`] ?? [host, port],
@if tls@
  useTLS: true,
@endif tls@
  requestTimeout: 5000,
};
@endeach caches@
