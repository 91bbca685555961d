#!/bin/sh
# What librdkafka's tests call as $KAFKA_PATH/bin/kafka-run-class.sh: a Java class with Kafka's jars.
exec java -Xmx128M -cp "$CLASSPATH:$KAFKA_PATH/libs/*" "$@"
