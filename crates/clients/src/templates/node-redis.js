import { @imports@ } from "redis";
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
export const @cache@Addresses = {
@each inside@
  @inside@: @outside@, // @label@
@endeach inside@
};
@if cluster@

export const @cache@Cache = createCluster({
  rootNodes: [
@each nodes@
    { socket: @outside@ },
@endeach nodes@
  ],
  nodeAddressMap: @cache@Addresses,
  defaults: { socket: { connectTimeout: 3000@if tls@, tls: true@endif tls@ } },
});
@endif cluster@
@unless cluster@
@each primary@

export const @cache@Cache = createClient({ socket: @outside@ }); // @label@
@endeach primary@
@if replicas@
export const @cache@Replicas = [
@each replicas@
    createClient({ socket: @outside@ }),
@endeach replicas@
];
@endif replicas@
@endunless cluster@
@cache@Cache.on("error", (error) => console.error(error));
// await @cache@Cache.connect();
@endeach caches@
