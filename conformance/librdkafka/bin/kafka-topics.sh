#!/bin/sh
# What librdkafka's tests call as $KAFKA_PATH/bin/kafka-topics.sh: Kafka's own tool.
exec java -Xmx128M -cp "$KAFKA_PATH/libs/*" org.apache.kafka.tools.TopicCommand "$@"
