"""A server of KServe with one LightGBM model, run by the Python of KServe's own environment."""

import argparse

import kserve
import lightgbm
import numpy as np
from kserve.protocol.infer_type import InferOutput, InferResponse


class Booster(kserve.Model):
    def __init__(self, name, artifact):
        super().__init__(name)
        self.booster = lightgbm.Booster(model_file=artifact)
        self.ready = True

    def get_input_types(self):
        return [{"name": "predict", "datatype": "FP64", "shape": [-1, self.booster.num_feature()]}]

    def get_output_types(self):
        return [{"name": "predict", "datatype": "FP64", "shape": [-1]}]

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 - the signature of KServe
        scores = np.asarray(self.booster.predict(payload.inputs[0].as_numpy(), num_threads=1))
        output = InferOutput("predict", [len(scores)], "FP64", data=scores.tolist())
        return InferResponse(payload.id, self.name, [output])


parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
parser.add_argument("--name", required=True)
parser.add_argument("--artifact", required=True)
arguments, _ = parser.parse_known_args()

if __name__ == "__main__":
    kserve.ModelServer(workers=1).start([Booster(arguments.name, arguments.artifact)])
