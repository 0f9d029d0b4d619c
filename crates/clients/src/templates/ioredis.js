import { @imports@ } from "ioredis";
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
export const @cache@Addresses = {
@each inside@
  @inside@: @outside@, // @label@
@endeach inside@
};
@if cluster@

export const @cache@Cache = new Cluster(
  [
@each nodes@
    @outside@,
@endeach nodes@
  ],
  {
    natMap: @cache@Addresses,
    redisOptions: { connectTimeout: 3000@if tls@, tls: {}@endif tls@ },
  },
);
@endif cluster@
@unless cluster@
@each primary@

export const @cache@Cache = new Redis(@outside@); // @label@
@endeach primary@
@if replicas@
export const @cache@Replicas = [
@each replicas@
    new Redis(@outside@),
@endeach replicas@
];
@endif replicas@
@endunless cluster@
@endeach caches@
