<?php
// Predis 1.1 or 2, after its autoloader

final class OutsideFactory extends Predis\Connection\Factory
{
    private $outside;

    public function __construct(array $outside)
    {
        $this->outside = $outside;
    }

    protected function createParameters($parameters)
    {
        if (is_array($parameters) && isset($parameters['host'], $parameters['port'])) {
            $key = $parameters['host'].':'.$parameters['port'];
            $parameters = ($this->outside[$key] ?? []) + $parameters;
        }

        return parent::createParameters($parameters);
    }
}
@each caches@

// @name@: what the cache calls its nodes, and what they are outside.
$@cache@_addresses = [
@each inside@
    @inside@ => @parameters@, // @label@
@endeach inside@
];
@if cluster@
$@cache@_cache = new Predis\Client([
@each nodes@
    @parameters@,
@endeach nodes@
], ['cluster' => 'redis', 'connections' => new OutsideFactory($@cache@_addresses)]);
@endif cluster@
@unless cluster@
@each primary@
$@cache@_cache = new Predis\Client(@parameters@); // @label@
@endeach primary@
@each replicas@
$@cache@_replicas[@id@] = new Predis\Client(@parameters@);
@endeach replicas@
@endunless cluster@
@endeach caches@
