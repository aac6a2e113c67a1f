"""What training needs beside the network and the data, in the order in which a run meets it.

distributed, devices    the processes of a run, and their device
run_folder              the files of a run; weights_files: the weights among them
schedule, ema           the learning rate over the run, the average of the weights
stop_request            signals that end it in order
run_log                 progress bar and TensorBoard; event_file, comparison: its files and pictures
metrics                 IoU; evaluation_pictures: gallery and confusion matrix
torch_engine            trained weights run by PyTorch; onnx_export: and made ONNX files
downloads, web          for setup_model_weights.py, and for the page
"""
