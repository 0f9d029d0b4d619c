package org.redisson.config;

public class BaseConfig<T extends BaseConfig<T>> {
    @SuppressWarnings("unchecked")
    public T setConnectTimeout(int millis) {
        return (T) this;
    }
}
